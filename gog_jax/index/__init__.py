"""The local index: search over a user's own documents and images."""
