"""Images with labels: sources, transforms, samplers and loaders."""
