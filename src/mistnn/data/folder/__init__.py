"""A folder of your own images and what is known about them."""
