"""What is logged to Weights & Biases, and the workspace that shows it."""
