"""What becomes of each of gunicorn's settings.

What it is for. No setting is without effect in silence: each one is honoured, or named at the start if the user has
set it.

What it owns. The two tables; tests/python/test_gunicorn_settings.py holds them against gunicorn's own list, of several
versions. What it must never do. Change a setting.
"""

from ..log import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HONOURED = {
    "sockd": "backlog bind graceful_timeout max_requests max_requests_jitter timeout umask user group workers",
    # Which have their effect as gunicorn reads its configuration, makes its logger or imports the application.
    "the template": "access_log_format accesslog capture_output chdir check_config config default_proc_name"
                    " disable_redirect_access_to_syslog dogstatsd_tags errorlog logconfig logconfig_dict logconfig_json"
                    " logger_class loglevel paste pidfile preload_app print_config pythonpath raw_env"
                    " raw_paste_global_conf spew statsd_host statsd_prefix syslog syslog_addr syslog_facility"
                    " syslog_prefix wsgi_app",
    "the hooks of gunicorn_arbiter.py": "child_exit nworkers_changed on_exit on_reload on_starting pre_fork when_ready",
    "gunicorn's worker": "asgi_disconnect_grace_period asgi_lifespan asgi_loop ca_certs casefold_http_method cert_reqs"
                         " certfile ciphers do_handshake_on_connect forwarded_allow_ips forwarder_headers header_map"
                         " http2_cleartext http2_initial_window_size http2_max_concurrent_streams http2_max_frame_size"
                         " http2_max_header_list_size http_parser http_protocols initgroups keepalive keyfile"
                         " limit_request_field_size limit_request_fields limit_request_line permit_obsolete_folding"
                         " permit_unconventional_http_method permit_unconventional_http_version post_fork post_request"
                         " post_worker_init pre_request proc_name protocol proxy_allow_ips proxy_protocol reload"
                         " reload_engine reload_extra_files root_path secure_scheme_headers sendfile ssl_context"
                         " ssl_version strip_header_spaces suppress_ragged_eofs threads uwsgi_allow_ips"
                         " websocket_max_message_size worker_abort worker_class worker_connections worker_exit"
                         " worker_int",
    # What they ask for is so in any case: heartbeats need no file; stdout and stderr are inherited; there is no control
    # socket of gunicorn's; and gunicorn itself does nothing with the last.
    "nobody": "worker_tmp_dir enable_stdio_inheritance control_socket_disable tmp_upload_dir",
}
NO_DIRTY = "sockd starts no dirty workers; a service of their own can run what they run"
NO_CONTROL = "`sockd status` and `sockd reload` say and do what gunicornc does"
LEFT_OUT = {
    "daemon": "sockd stays in the foreground, as the service manager wants it",
    "reuse_port": "all workers share the sockets that sockd holds",
    "enable_backlog_metric": "`sockd status` shows how many connections wait",
    "control_socket": NO_CONTROL,
    "control_socket_mode": NO_CONTROL,
    "dirty_apps": NO_DIRTY,
    "dirty_workers": NO_DIRTY,
    "dirty_threads": NO_DIRTY,
    "dirty_timeout": NO_DIRTY,
    "dirty_graceful_timeout": NO_DIRTY,
    "on_dirty_starting": NO_DIRTY,
    "dirty_post_fork": NO_DIRTY,
    "dirty_worker_init": NO_DIRTY,
    "dirty_worker_exit": NO_DIRTY,
    "pre_exec": "sockd does not execute itself again on SIGUSR2",
}
NEW = "it is newer than this sockd, which does not know it"


def warn_of_what_is_left_out(cfg: "Any") -> None:
    """Name each setting of the user's that has no effect, with why."""
    honoured = " ".join(HONOURED.values()).split()
    for name, setting in sorted(cfg.settings.items()):
        if name not in honoured and setting.get() != type(setting)().get():
            complain("gunicorn's setting %s has no effect: %s" % (name, LEFT_OUT.get(name, NEW)))
