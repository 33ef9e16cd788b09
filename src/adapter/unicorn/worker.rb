# sockd: one worker is a master with one process, on the sockets that it was given. The file of its owner has run.
worker_processes 1
# It would execute itself without this file.
worker_exec false
pid nil
tap do
  before_fork, ready, ended = set[:before_fork], set[:after_worker_ready], set[:after_worker_exit]
  read = after_reload

  set[:before_fork] = lambda do |server, worker|
    # By these it would load code, start another master, or have other than one process. That is sockd's affair.
    %w[HUP USR2 WINCH TTIN TTOU].each { |signal| trap(signal, "IGNORE") }
    # A hook of the owner's may ask for more sockets.
    server.define_singleton_method(:listen) do |address, *|
      logger.warn "sockd: listen #{address} is ignored: a worker listens where sockd does"
    end
    before_fork.call(server, worker)
  end

  # The application is loaded.
  set[:after_worker_ready] = lambda do |server, worker|
    ready.call(server, worker)
    notify = Socket.new(:UNIX, :DGRAM)
    notify.send("READY=1", 0, Socket.sockaddr_un(ENV["NOTIFY_SOCKET"].sub(/\A@/, "\0")))
    notify.close
  end

  # It ends as its process does, so that sockd knows of it, and replaces both.
  set[:after_worker_exit] = lambda do |server, worker, status|
    failed = !status.success? && !Unicorn::HttpServer::LISTENERS.empty?
    # What Unicorn itself says of that would hide the reason, which stands before it.
    ended.call(server, worker, status) unless failed && ended == Unicorn::Configurator::DEFAULTS[:after_worker_exit]
    Process.kill(status.termsig, $$) if failed && status.signaled?
    exit status.exitstatus if failed && status.exited?
  end

  # Behind all that says where to listen: this file, the command line and the first lines of config.ru.
  self.after_reload = lambda do
    read&.call
    set[:listeners] = Unicorn::HttpServer::LISTENERS.dup
  end
end
