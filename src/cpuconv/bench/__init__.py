"""Times the layers of standard networks in cpuconv and in whatever peers are installed, and reports. Run by ``cpuconv bench``."""
