/* Holds the namespaces of a pod: waits for a signal to end, and collects children that a container left behind. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void finish(int number) { _exit(number == SIGINT || number == SIGTERM ? 0 : 1); }

static void reap(int number) {
  (void)number;
  while (waitpid(-1, 0, WNOHANG) > 0) {
  }
}

int main(void) {
  signal(SIGINT, finish);
  signal(SIGTERM, finish);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
