# Sourced by install.sh: PyTorch for CPU from the first source that has it. TORCH_SOURCES (wheel, cpu-index, pypi) names the order.
# wheel: a file in /wheels, mounted into the build. cpu-index: PyTorch's own index, whose address uv knows. pypi: the ordinary
# build, which brings CUDA's libraries along (2.6 GB) and runs on the CPU as well. Each compiles, as install.sh does: an engine
# imports torch and vLLM in four processes, one after the other, and each took 8 s instead of 5 s without torch's bytecode.

torch_wheel() {
    set -- /wheels/torch-"${TORCH_VERSION}"*.whl
    [ -f "$1" ] || { say "torch: no wheel of ${TORCH_VERSION} in the local folder, next source"; return 1; }
    say "torch: $(basename "$1") from the local folder"
    uv pip install --quiet --no-deps --compile-bytecode "$1"
}

torch_cpu_index() {
    # A short look first: where the index cannot be reached, this costs seconds and not a download's time limit.
    UV_HTTP_TIMEOUT=5 UV_HTTP_RETRIES=0 uv pip install --quiet --dry-run --no-deps --torch-backend cpu "torch==${TORCH_VERSION}" 2>/dev/null ||
        { say "torch: PyTorch's CPU index is not reached, next source"; return 1; }
    say "torch: ${TORCH_VERSION} from PyTorch's CPU index"
    uv pip install --quiet --no-deps --compile-bytecode --torch-backend cpu "torch==${TORCH_VERSION}"
}

torch_pypi() {
    say "torch: ${TORCH_VERSION} with CUDA's libraries from the package index (2.6 GB to download)"
    uv pip install --quiet --compile-bytecode "torch==${TORCH_VERSION}"
}

torch_done=
for source in ${TORCH_SOURCES}; do
    case $source in
        wheel) torch_wheel && torch_done=yes && break ;;
        cpu-index) torch_cpu_index && torch_done=yes && break ;;
        pypi) torch_pypi && torch_done=yes && break ;;
        *) say "TORCH_SOURCES: '$source' is not one of wheel, cpu-index, pypi"; exit 1 ;;
    esac
done
[ -n "$torch_done" ] || { say "torch: none of the sources '${TORCH_SOURCES}' has torch ${TORCH_VERSION}"; exit 1; }
