"""What every part needs: errors for users, the process's environment, timing, a model's cost."""
