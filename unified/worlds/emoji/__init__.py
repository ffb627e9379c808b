"""The data set that ships with the package: emoji sprites, scenes composed of them, and tasks."""
