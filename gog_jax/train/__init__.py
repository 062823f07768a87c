"""Training: pretraining of the toy base, SFT, GRPO."""
