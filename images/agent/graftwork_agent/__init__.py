"""The agent of a serving pod: brings adapters from the store into the pod's engine and tells the operator what the engine lists."""
