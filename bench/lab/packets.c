/* Carries packets between the boards of a lab, at a rate, with a delay and a loss. packets.py is the
   same in Python.

   packets CONTROL WATCH RATE_BPS DELAY_NS LOSS_PPM SHARED NAMESPACE...

   Makes eth0, a tun device, in every namespace; the packet for the board n goes to the n-th of them.
   Says "up" when it has. CONTROL is the path of a datagram socket: "RATE_BPS DELAY_NS LOSS_PPM CUT
   OFFLOAD" changes the link (CUT: a bit for every board whose cable is pulled; OFFLOAD 1: the boards'
   kernels need not segment TCP, as with a network card that does), anything else changes nothing; both
   are answered by what was done so far. WATCH 1 ends it with its standard input. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MOST 4
#define LARGEST 65536
#define MOST_HELD (64 << 20)         /* bytes that may be on their way to one board */
#define AT_ONCE 64                   /* packets read from one board before the others' turn */
#define FRAMING 38                   /* bytes of Ethernet around each packet, its gap included */
#define LONGEST_QUEUE_NS 100000000LL /* a packet that would wait longer is dropped, as by a switch */

/* What a kernel hands over and takes: an IP packet, and how much of its work is left to be done. */
typedef struct {
    struct virtio_net_hdr todo;
    unsigned char ip[LARGEST];
} Frame;

/* What a frame is on the medium: the packets it is sent as, and their bytes. */
typedef struct {
    int packets, bytes;
} Load;

typedef struct Queued {
    struct Queued *next;
    int64_t at;
    Load load;
    size_t size;
    unsigned char frame[];
} Queued;

typedef struct {
    int tun, cut;
    int64_t up_until, down_until, last_at;
    size_t held;
    Queued *first, *last;
} Board;

static struct {
    long long packets, bytes, lost, dropped, late_ns, latest_ns;
} done;

static Board boards[MOST];
static int count, shared, loss_ppm, offload;
static size_t unsaid; /* bytes of `todo` that this kernel's tun devices know nothing of: all or none */
static double rate_bps;
static int64_t delay_ns, air_until;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int open_tun(const char *namespace) {
    int there = open(namespace, O_RDONLY | O_CLOEXEC);
    if (there < 0 || setns(there, CLONE_NEWNET)) fail(namespace);
    close(there);
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0) fail("/dev/net/tun");
    unsigned features = 0;
    ioctl(tun, TUNGETFEATURES, &features);
    unsaid = features & IFF_VNET_HDR ? 0 : sizeof(struct virtio_net_hdr);
    struct ifreq request;
    memset(&request, 0, sizeof request);
    request.ifr_flags = IFF_TUN | IFF_NO_PI | (features & IFF_VNET_HDR);
    strcpy(request.ifr_name, "eth0");
    if (ioctl(tun, TUNSETIFF, &request)) fail("tun device eth0");
    return tun;
}

static int open_control(const char *path) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof name.sun_path) {
        fprintf(stderr, "%s: too long for a socket\n", path);
        exit(1);
    }
    strcpy(name.sun_path, path);
    int control = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (control < 0 || bind(control, (struct sockaddr *)&name, sizeof name)) fail(path);
    return control;
}

/* Lets the boards' kernels leave checksums and segments undone, or not; off where one refuses. */
static void set_offload(int on) {
    offload = on && !unsaid;
    for (int i = 0; i < count && !unsaid; i++)
        if (ioctl(boards[i].tun, TUNSETOFFLOAD, on ? TUN_F_CSUM | TUN_F_TSO4 : 0)) offload = 0;
}

static void obey(int control) {
    char text[256];
    struct sockaddr_un sender;
    socklen_t size = sizeof sender;
    ssize_t len = recvfrom(control, text, sizeof text - 1, 0, (struct sockaddr *)&sender, &size);
    if (len < 0) return;
    text[len] = 0;
    double rate;
    long long delay;
    int loss, on;
    unsigned cut;
    if (sscanf(text, "%lf %lld %d %u %d", &rate, &delay, &loss, &cut, &on) == 5 && rate > 0) {
        rate_bps = rate, delay_ns = delay, loss_ppm = loss;
        if (on != offload) set_offload(on);
        for (int i = 0; i < count; i++) boards[i].cut = cut >> i & 1;
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    long long cpu_ns = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000LL +
                       (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000LL;
    len = snprintf(text, sizeof text, "%lld %lld %lld %lld %lld %lld %lld %d", done.packets, done.bytes,
                   done.lost, done.dropped, done.late_ns, done.latest_ns, cpu_ns, offload);
    if (sendto(control, text, len, 0, (struct sockaddr *)&sender, size) < 0) return; /* gone */
}

/* Segments that the kernel left unmade each have the headers of the whole. */
static Load load_of(const Frame *frame, int len) {
    int size = frame->todo.gso_size, at = (frame->ip[0] & 15) * 4;
    if (frame->todo.gso_type != VIRTIO_NET_HDR_GSO_TCPV4 || !size || at + 20 > len)
        return (Load){1, len};
    int headers = at + (frame->ip[at + 12] >> 4) * 4;
    int packets = headers < len ? (len - headers + size - 1) / size : 1;
    return (Load){packets, len + (packets - 1) * headers};
}

/* Returns when the last bit has left the medium, or -1 for a frame that found its queue full. */
static int64_t take_turn(Board *from, Board *to, Load load, int64_t t) {
    int64_t takes = (load.bytes + load.packets * FRAMING) * 8 / rate_bps * 1e9;
    if (shared) {
        if (air_until - t > LONGEST_QUEUE_NS) return -1;
        return air_until = (air_until > t ? air_until : t) + takes;
    }
    if (from->up_until - t > LONGEST_QUEUE_NS) return -1;
    int64_t begun = from->up_until > t ? from->up_until : t;
    from->up_until = begun + takes;
    /* The switch passes on what it has, so an idle downlink adds nothing. */
    if (to->down_until - begun > LONGEST_QUEUE_NS) return -1;
    return to->down_until = (to->down_until > begun ? to->down_until : begun) + takes;
}

static void send_to(Board *from, Board *to, const Frame *frame, int len, int64_t t) {
    Load load = load_of(frame, len);
    if (from->cut || to->cut || (loss_ppm && rand() % 1000000 < loss_ppm)) {
        done.lost += load.packets;
        return;
    }
    size_t size = sizeof frame->todo + len - unsaid;
    int64_t left = to->held > MOST_HELD ? -1 : take_turn(from, to, load, t);
    Queued *queued = left < 0 ? NULL : malloc(sizeof *queued + size);
    if (!queued) {
        done.dropped += load.packets;
        return;
    }
    int64_t at = left + delay_ns;
    if (at < to->last_at) at = to->last_at; /* a shorter delay overtakes nobody */
    *queued = (Queued){.at = at, .load = load, .size = size};
    memcpy(queued->frame, (const unsigned char *)frame + unsaid, size);
    to->last_at = at;
    to->held += sizeof *queued + size;
    if (to->first) to->last->next = queued;
    else to->first = queued;
    to->last = queued;
}

static void take_from(Board *from) {
    static Frame frame;
    for (int k = 0; k < AT_ONCE; k++) {
        int len = read(from->tun, (unsigned char *)&frame + unsaid, sizeof frame - unsaid);
        if (len <= 0) return;
        len -= sizeof frame.todo - unsaid;
        if (len < 20 || frame.ip[0] >> 4 != 4) continue; /* IPv4 only */
        int64_t t = now();
        int to_all = frame.ip[16] >= 224 || frame.ip[19] == 255, last = frame.ip[19] - 1;
        for (int i = 0; i < count; i++)
            if (&boards[i] != from && (to_all || i == last)) send_to(from, &boards[i], &frame, len, t);
    }
}

static void hand_over(Board *to, const Queued *queued, int64_t late) {
    if (to->cut || write(to->tun, queued->frame, queued->size) < 0) {
        done.lost += queued->load.packets;
        return;
    }
    done.packets += queued->load.packets, done.bytes += queued->load.bytes;
    done.late_ns += late * queued->load.packets;
    if (late > done.latest_ns) done.latest_ns = late;
}

static int64_t deliver(void) {
    int64_t soonest = 0;
    for (Board *to = boards; to < boards + count; to++) {
        for (Queued *queued; (queued = to->first);) {
            int64_t late = now() - queued->at;
            if (late < 0) {
                if (!soonest || queued->at < soonest) soonest = queued->at;
                break;
            }
            hand_over(to, queued, late);
            to->first = queued->next;
            to->held -= sizeof *queued + queued->size;
            free(queued);
        }
    }
    return soonest;
}

int main(int argc, char **argv) {
    if (argc < 9 || argc > 7 + MOST) {
        fprintf(stderr, "packets CONTROL WATCH RATE_BPS DELAY_NS LOSS_PPM SHARED NAMESPACE...\n");
        return 2;
    }
    int control = open_control(argv[1]), watch = atoi(argv[2]);
    rate_bps = atof(argv[3]), delay_ns = atoll(argv[4]), loss_ppm = atoi(argv[5]);
    shared = atoi(argv[6]), count = argc - 7;
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < count; i++) boards[i].tun = open_tun(argv[7 + i]);
    if (setns(home, CLONE_NEWNET)) fail("own namespace");
    close(home);
    int64_t armed = 0;
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct pollfd fds[MOST + 3] = {{control, POLLIN, 0}, {timer, POLLIN, 0}, {watch ? 0 : -1, POLLIN, 0}};
    for (int i = 0; i < count; i++) fds[3 + i] = (struct pollfd){boards[i].tun, POLLIN, 0};
    printf("up\n");
    fflush(stdout);
    for (;;) {
        if (poll(fds, 3 + count, -1) < 0) continue;
        char bytes[8];
        if (fds[2].revents && read(0, bytes, sizeof bytes) <= 0) return 0;
        if (fds[1].revents && read(timer, bytes, sizeof bytes) > 0) armed = 0;
        if (fds[0].revents) obey(control);
        for (int i = 0; i < count; i++)
            if (fds[3 + i].revents) take_from(&boards[i]);
        int64_t soonest = deliver();
        if (soonest == armed) continue;
        armed = soonest;
        struct itimerspec when = {{0, 0}, {soonest / 1000000000LL, soonest % 1000000000LL}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, 0);
    }
}
