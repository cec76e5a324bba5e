"""How much a model needs: memory of a GPU, of a pod, time to start. Arithmetic only: numbers in, numbers and their terms out."""
