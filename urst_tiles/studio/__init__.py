"""The studio: an image and its painting in the browser, before anything is written."""
