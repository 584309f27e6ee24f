"""Images composed of digits on the fly: scenes, scattered digits, distorted digits, and digits with a common class."""
