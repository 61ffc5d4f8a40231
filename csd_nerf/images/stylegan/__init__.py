"""StyleGAN2: networks, checkpoints, training from pictures, and adaptation to a prompt."""
