"""Small reusable modules: residual blocks, heat-map networks, patch networks."""
