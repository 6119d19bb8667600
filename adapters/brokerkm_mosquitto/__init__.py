"""What guards Mosquitto: the C source of a plugin for it, in `plugin/`, whose README says how to build and load it."""
