"""Programs over what an assistant can do: each takes functions of requests and knows no model."""
