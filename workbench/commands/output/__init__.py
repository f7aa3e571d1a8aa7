"""What commands print while work is going on."""
