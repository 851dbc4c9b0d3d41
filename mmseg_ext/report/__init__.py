"""What people look at: data in, files out."""
