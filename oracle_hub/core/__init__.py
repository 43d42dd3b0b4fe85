"""The decision. Pure: no clock, socket, file, task or log. Time comes in as an argument, values in, values out."""
