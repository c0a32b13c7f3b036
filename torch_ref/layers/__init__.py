"""Small parts with parameters, each initialised as the papers' models are."""
