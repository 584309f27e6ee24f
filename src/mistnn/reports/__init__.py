"""Pages for people: the demo's report, reports on counting, and the inspection of an image folder."""
