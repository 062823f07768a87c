"""The tools a policy may call, and the executor that runs them."""
