// The HiveMQ MQTT client: takes steps as JSON lines on standard input, answers each with a JSON line. See ../../README.md.
// Both versions have types of their own: what differs is in Session3 and Session5.

import com.google.gson.Gson;
import com.hivemq.client.mqtt.MqttClient;
import com.hivemq.client.mqtt.MqttClientBuilder;
import com.hivemq.client.mqtt.MqttClientSslConfig;
import com.hivemq.client.mqtt.mqtt3.exceptions.Mqtt3ConnAckException;
import com.hivemq.client.mqtt.mqtt5.exceptions.Mqtt5ConnAckException;
import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.TrustManagerFactory;

public final class Client {
    record Message(String topic, String payload, int qos, boolean retain) {}

    record Filter(String topic, int qos) {}

    record Will(String topic, String payload, int qos, boolean retain) {}

    record Step(
            String op, String conn, String version, String url, String client_id, String user, String password,
            boolean persistent, String ca, String p12, String p12_password, Will will, List<Filter> subscribe,
            String topic, String payload, int qos, boolean retain, int count, double seconds) {}

    /** What the script needs of a client of either version. Calls come back when the server has answered. */
    interface Session {
        boolean connect(Step step) throws Exception;

        int subscribe(Filter filter) throws Exception;

        void publish(Step step) throws Exception;

        void disconnect() throws Exception;
    }

    record Connection(Session session, LinkedBlockingQueue<Message> messages) {}

    static final long WAIT = 20;

    private final Map<String, Connection> connections = new HashMap<>();

    private static MqttClientBuilder builder(Step step) throws Exception {
        URI url = URI.create(step.url);
        MqttClientBuilder builder = MqttClient.builder()
                .identifier(step.client_id)
                .serverHost(url.getHost())
                .serverPort(url.getPort());
        if (url.getScheme().startsWith("ws")) {
            builder = builder.webSocketConfig().serverPath(url.getPath()).applyWebSocketConfig();
        }
        return step.ca == null ? builder : builder.sslConfig(tls(step));
    }

    private static MqttClientSslConfig tls(Step step) throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (FileInputStream ca = new FileInputStream(step.ca)) {
            trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(ca));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        var config = MqttClientSslConfig.builder().trustManagerFactory(trust);
        if (step.p12 != null) {
            char[] password = step.p12_password.toCharArray();
            KeyStore own = KeyStore.getInstance("PKCS12");
            try (FileInputStream file = new FileInputStream(step.p12)) {
                own.load(file, password);
            }
            KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            keys.init(own, password);
            config = config.keyManagerFactory(keys);
        }
        return config.build();
    }

    private Map<String, Object> connect(Step step) throws Exception {
        LinkedBlockingQueue<Message> messages = new LinkedBlockingQueue<>();
        MqttClientBuilder builder = builder(step);
        Session session = step.version.equals("5.0")
                ? new Session5(builder.useMqttVersion5().buildAsync(), messages)
                : new Session3(builder.useMqttVersion3().buildAsync(), messages);
        boolean sessionPresent = session.connect(step);
        connections.put(step.conn, new Connection(session, messages));
        List<Integer> granted = new ArrayList<>();
        for (Filter filter : step.subscribe) {
            granted.add(session.subscribe(filter));
        }
        return Map.of("ok", true, "session_present", sessionPresent, "granted", granted);
    }

    private static List<Message> receive(Connection connection, Step step) throws InterruptedException {
        List<Message> got = new ArrayList<>();
        long until = System.nanoTime() + (long) (step.seconds * 1e9);
        while (got.size() < step.count) {
            Message one = connection.messages.poll(until - System.nanoTime(), TimeUnit.NANOSECONDS);
            if (one == null) {
                break;
            }
            got.add(one);
        }
        return got;
    }

    private Map<String, Object> perform(Step step) throws Exception {
        Connection connection = connections.get(step.conn);
        switch (step.op) {
            case "connect":
                return connect(step);
            case "publish":
                connection.session.publish(step);
                return Map.of("ok", true);
            case "receive":
                return Map.of("ok", true, "messages", receive(connection, step));
            default:
                connection.session.disconnect();
                connections.remove(step.conn);
                return Map.of("ok", true);
        }
    }

    private static Map<String, Object> failed(Exception error) {
        Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
        Map<String, Object> answer = new HashMap<>(Map.of("ok", false, "error", cause.toString()));
        if (cause instanceof Mqtt3ConnAckException refused) {
            answer.put("code", refused.getMqttMessage().getReturnCode().getCode());
        } else if (cause instanceof Mqtt5ConnAckException refused) {
            answer.put("code", refused.getMqttMessage().getReasonCode().getCode());
        }
        return answer;
    }

    public static void main(String[] arguments) throws Exception {
        Client client = new Client();
        Gson gson = new Gson();
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            Map<String, Object> answer;
            try {
                answer = client.perform(gson.fromJson(line, Step.class));
            } catch (Exception error) {
                answer = failed(error);
            }
            out.println(gson.toJson(answer));
        }
        System.exit(0);
    }
}
