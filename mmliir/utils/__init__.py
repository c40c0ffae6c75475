"""Small services shared by the whole package: engine check, safe files, checkpoints, seeds."""
