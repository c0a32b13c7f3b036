"""The outcome of a comparison as files: a page for people, JSON and JUnit for programs."""
