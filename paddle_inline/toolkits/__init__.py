"""What the launchers for PaddleDetection and PaddleSeg share: command line, settings, mends of older wheels."""
