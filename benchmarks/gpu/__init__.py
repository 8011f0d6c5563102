"""Training on a GPU of a machine without a network: gather what it lacks here, install and measure there."""
