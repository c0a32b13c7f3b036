"""The commands of `python -m paddle_inline`, one file each; main.py has their table."""
