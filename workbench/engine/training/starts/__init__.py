"""Makes LoRA's first weights from records or from the quantization error, with PEFT's functions."""
