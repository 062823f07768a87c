"""Conversations of an agent, in this project's files and in those of others."""
