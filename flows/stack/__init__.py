"""The local stack: server, worker, watcher and S3 server as children of `leptonflow up`."""
