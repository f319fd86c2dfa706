"""The job folder: what it holds, who works in it, and the request that started it."""
