"""What every part needs: errors for users."""
