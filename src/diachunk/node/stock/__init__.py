"""What is here and verified, in columns, followed while it grows: what the server shares."""
