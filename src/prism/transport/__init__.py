"""Moving byte frames between nodes; import the modules by name, `link` is free of torch."""
