"""What answers each path, by subject. Every function takes a `Visit` that has been let in and returns a response."""
