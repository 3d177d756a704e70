"""What a result says of single nodes, for viewers of graphs: Model Explorer's node data, and metadata for Netron."""
