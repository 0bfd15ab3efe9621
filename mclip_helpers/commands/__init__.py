"""What is installed as a command: `mclip-compare` and `mclip-finetune`."""
