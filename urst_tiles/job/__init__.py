"""The job folder, the request that is saved in it, and the shares of its blocks that workers compute."""
