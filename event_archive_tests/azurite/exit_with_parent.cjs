// Loaded before Azurite: its standard input ends when the test process does, however that ends.
process.stdin.on("end", () => process.kill(process.pid, "SIGTERM")).resume();
