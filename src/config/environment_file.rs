//! Files of variables, with the syntax of systemd's `EnvironmentFile=` (systemd.exec(5)).
