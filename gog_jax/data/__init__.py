"""Records on disk -> examples -> what a step reads."""
