"""What operators may ask and change while the proxy runs."""
