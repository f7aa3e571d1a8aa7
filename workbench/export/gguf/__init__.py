"""Models as GGUF files, for llama.cpp-compatible tools."""
