"""Local pages: labelling the counts of images in a browser. They serve this computer only."""
