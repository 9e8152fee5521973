"""What a record may be: layouts of conversations, filters, own converters."""
