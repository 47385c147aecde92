"""The image, without a container engine: what its Dockerfile says is done in a folder."""
