"""Image folders of users: reading their content, sampling their images, and estimating the size of their objects."""
