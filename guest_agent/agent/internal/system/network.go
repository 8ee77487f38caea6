package system

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// IPv4 is an address in its usual order.
type IPv4 [4]byte

func (a IPv4) String() string {
	parts := make([]string, len(a))
	for i, b := range a {
		parts[i] = strconv.Itoa(int(b))
	}
	return strings.Join(parts, ".")
}

// ParseIPv4 reads dotted decimals without leading zeros.
func ParseIPv4(text string) (a IPv4, err error) {
	parts := strings.Split(text, ".")
	if len(parts) != len(a) {
		return a, errors.New("not an IPv4 address: " + text)
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != part {
			return a, errors.New("not an IPv4 address: " + text)
		}
		a[i] = byte(n)
	}
	return a, nil
}

// MAC is the hardware's address of an interface.
type MAC [6]byte

func (m MAC) String() string {
	parts := make([]string, len(m))
	for i := range m {
		parts[i] = Hex(m[i : i+1])
	}
	return strings.Join(parts, ":")
}

// ParseMAC reads six bytes in hexadecimal digits, with colons between them, that can be an
// interface's own.
func ParseMAC(text string) (m MAC, err error) {
	parts := strings.Split(text, ":")
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 16, 8)
		if err != nil || len(part) != 2 || len(parts) != len(m) {
			return m, errors.New("not a MAC address: " + text)
		}
		m[i] = byte(n)
	}
	if m[0]&1 != 0 || m == (MAC{}) {
		return m, errors.New("no interface's own MAC address: " + text)
	}
	return m, nil
}

// Interface is a network interface and what it should be set to. A zero gateway means none, a zero
// MAC the one that it has.
type Interface struct {
	Name    string
	MAC     MAC
	Address IPv4
	Mask    IPv4
	Gateway IPv4
}

// ParseInterface reads an address like 10.0.2.15/24 and a gateway, which may be empty.
func ParseInterface(name, address, gateway string) (i Interface, err error) {
	i.Name = name
	if name == "" || len(name) >= syscall.IFNAMSIZ {
		return i, errors.New("not a name of an interface: " + name)
	}
	ip, length, _ := strings.Cut(address, "/")
	if i.Address, err = ParseIPv4(ip); err != nil {
		return i, err
	}
	n, err := strconv.ParseUint(length, 10, 8)
	if err != nil || n < 1 || n > 32 {
		return i, errors.New("the address needs a prefix length: " + address)
	}
	binary.BigEndian.PutUint32(i.Mask[:], bits.Reverse32(1<<n-1))
	if gateway != "" {
		i.Gateway, err = ParseIPv4(gateway)
	}
	return i, err
}

func (i Interface) prefix() int { return bits.OnesCount32(binary.BigEndian.Uint32(i.Mask[:])) }

// SetUpInterface gives the interface its address, takes it up and sets the default route.
func (Guest) SetUpInterface(i Interface) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := setMAC(fd, i.Name, i.MAC); err != nil {
		return err
	}
	if err := setAddress(fd, syscall.SIOCSIFADDR, i.Name, i.Address); err != nil {
		return err
	}
	if err := setAddress(fd, syscall.SIOCSIFNETMASK, i.Name, i.Mask); err != nil {
		return err
	}
	if err := takeUp(fd, i.Name); err != nil {
		return err
	}
	if i.Gateway == (IPv4{}) {
		return nil
	}
	return addDefaultRoute(fd, i.Gateway)
}

// LoopbackUp takes the loopback interface up.
func LoopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return takeUp(fd, "lo")
}

// request is struct ifreq: a name and a union of 24 bytes.
type request struct {
	name [syscall.IFNAMSIZ]byte
	data [24]byte
}

func newRequest(name string) *request {
	r := &request{}
	copy(r.name[:syscall.IFNAMSIZ-1], name)
	return r
}

// sockaddr puts an address as a struct sockaddr_in at b.
func sockaddr(b []byte, a IPv4) {
	binary.NativeEndian.PutUint16(b, syscall.AF_INET)
	copy(b[4:], a[:])
}

func setAddress(fd int, call uintptr, name string, a IPv4) error {
	r := newRequest(name)
	sockaddr(r.data[:], a)
	return ioctl(fd, call, unsafe.Pointer(r))
}

func takeUp(fd int, name string) error {
	return changeFlags(fd, name, func(flags uint16) uint16 { return flags | syscall.IFF_UP })
}

func takeDown(fd int, name string) error {
	return changeFlags(fd, name, func(flags uint16) uint16 { return flags &^ syscall.IFF_UP })
}

func changeFlags(fd int, name string, change func(uint16) uint16) error {
	r := newRequest(name)
	if err := ioctl(fd, syscall.SIOCGIFFLAGS, unsafe.Pointer(r)); err != nil {
		return err
	}
	flags := binary.NativeEndian.Uint16(r.data[:])
	binary.NativeEndian.PutUint16(r.data[:], change(flags))
	return ioctl(fd, syscall.SIOCSIFFLAGS, unsafe.Pointer(r))
}

// setMAC gives the interface another address of the hardware, with the link down: it has lost its
// routes then. Nothing happens where it has that one.
func setMAC(fd int, name string, mac MAC) error {
	if mac == (MAC{}) {
		return nil
	}
	r := newRequest(name)
	if err := ioctl(fd, syscall.SIOCGIFHWADDR, unsafe.Pointer(r)); err != nil {
		return err
	}
	const family = 2 // bytes of a struct sockaddr before its address
	if MAC(r.data[family:family+len(mac)]) == mac {
		return nil
	}
	if err := takeDown(fd, name); err != nil {
		return err
	}
	copy(r.data[family:], mac[:])
	return ioctl(fd, syscall.SIOCSIFHWADDR, unsafe.Pointer(r))
}

// addDefaultRoute sends everything else to gateway. That the route is there already is fine.
func addDefaultRoute(fd int, gateway IPv4) error {
	var route struct { // struct rtentry
		_           uint64
		destination [16]byte
		gateway     [16]byte
		mask        [16]byte
		flags       uint16
		_           [62]byte
	}
	sockaddr(route.destination[:], IPv4{})
	sockaddr(route.gateway[:], gateway)
	sockaddr(route.mask[:], IPv4{})
	route.flags = syscall.RTF_UP | syscall.RTF_GATEWAY
	if err := ioctl(fd, syscall.SIOCADDRT, unsafe.Pointer(&route)); err != syscall.EEXIST {
		return err
	}
	return nil
}

// SetUpInterface is written down.
func (s Sandbox) SetUpInterface(i Interface) error {
	mac := ""
	if i.MAC != (MAC{}) {
		mac = " " + i.MAC.String()
	}
	return s.record("interface " + i.Name + mac + " " + i.Address.String() + "/" + strconv.Itoa(i.prefix()) +
		" via " + i.Gateway.String())
}
